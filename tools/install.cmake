# What `cmake --install` puts where for a program: the binary, its manual page, and completions that it writes itself.
include(GNUInstallDirs)

function(qwen_install_program name)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES ${name}.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  foreach(shell bash zsh fish)
    install(CODE "execute_process(COMMAND \"$<TARGET_FILE:${name}>\" completion ${shell}
      OUTPUT_FILE \"${CMAKE_CURRENT_BINARY_DIR}/${name}.${shell}\" COMMAND_ERROR_IS_FATAL ANY)")
  endforeach()
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.bash RENAME ${name}
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.zsh RENAME _${name}
    DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endfunction()
