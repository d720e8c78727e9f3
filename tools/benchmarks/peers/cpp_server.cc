// The C++ peer: gRPC's synchronous server, as its tutorial has it. Usage: cpp_server FILE STATE SESSION [CERT KEY],
// where STATE holds the encoded GetSessionStateResponse that every server of the benchmark gives.

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>

#include "axxonsoft/bl/mmexport/ExportService.grpc.pb.h"

namespace mmexport = axxonsoft::bl::mmexport;

static std::string ReadAll(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

class ExportService final : public mmexport::ExportService::Service {
 public:
  ExportService(int fd, const std::string& state, std::string session) : fd_(fd), session_(std::move(session)) {
    state_.ParseFromString(state);
  }

  grpc::Status GetSessionState(grpc::ServerContext*, const mmexport::GetSessionStateRequest* request,
                               mmexport::GetSessionStateResponse* response) override {
    if (request->session_id() != session_)
      return grpc::Status(grpc::StatusCode::NOT_FOUND, "There is no session with provided ID");
    *response = state_;
    return grpc::Status::OK;
  }

  grpc::Status DownloadFile(grpc::ServerContext*, const mmexport::DownloadFileRequest* request,
                            grpc::ServerWriter<mmexport::FileChunk>* writer) override {
    const size_t chunk_size = (request->chunk_size_kb() ? request->chunk_size_kb() : 64) * 1024;
    mmexport::FileChunk chunk;
    for (uint64_t index = request->start_from_chunk_index();; ++index) {
      std::string* data = chunk.mutable_data();
      data->resize(chunk_size);
      const ssize_t count = pread(fd_, data->data(), chunk_size, static_cast<off_t>(index * chunk_size));
      if (count < 0) return grpc::Status(grpc::StatusCode::DATA_LOSS, "the file cannot be read");
      if (count == 0) return grpc::Status::OK;
      data->resize(static_cast<size_t>(count));
      chunk.set_index(index);
      if (!writer->Write(chunk)) return grpc::Status::CANCELLED;
    }
  }

 private:
  const int fd_;
  const std::string session_;
  mmexport::GetSessionStateResponse state_;
};

int main(int argc, char** argv) {
  if (argc != 4 && argc != 6) return 2;
  const int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    perror(argv[1]);
    return 1;
  }
  ExportService service(fd, ReadAll(argv[2]), argv[3]);
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (argc == 6) {
    grpc::SslServerCredentialsOptions options;
    options.pem_key_cert_pairs.push_back({ReadAll(argv[5]), ReadAll(argv[4])});
    credentials = grpc::SslServerCredentials(options);
  }
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", credentials, &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return 1;
  std::cout << "{\"port\": " << port << ", \"session\": \"" << argv[3] << "\"}" << std::endl;
  server->Wait();
}
